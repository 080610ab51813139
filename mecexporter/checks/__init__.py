"""Pure questions to the World, one file each."""
