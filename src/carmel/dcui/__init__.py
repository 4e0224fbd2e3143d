"""The console on the machine's own screen: a status page, for now. It is a client of the API like any other."""
