"""Jobs of `lines submit`: their package, and the client that submits and follows them."""
