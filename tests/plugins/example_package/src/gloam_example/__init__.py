"""Parts for gloam. Importing the package itself loads nothing; gloam imports the modules when it looks names up."""
