"""``carmel``: the command line. A client of the API like any other; modules are imported when their command is used."""
