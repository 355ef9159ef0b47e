"""What a study advises: batch size, learning rate, momentum, costs and further trials."""
