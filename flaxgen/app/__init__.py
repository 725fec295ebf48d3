"""The studio: a server that draws for browsers and programs. The extra `app` has what it needs."""
