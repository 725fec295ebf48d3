"""What every family is made of: its declaration, requests, the models that are loaded, the engine that draws."""
