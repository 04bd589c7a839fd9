"""Pages of the site that are written from the package: the zoo, recipes, file formats."""
