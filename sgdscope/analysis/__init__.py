"""Tables in, tables out; imports no array framework."""
