"""`lines submit`: what a job contains, and the client that sends and follows it."""
