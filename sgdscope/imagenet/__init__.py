"""ImageNet: its index, its images and ResNet-50; needs the extra `imagenet`."""
