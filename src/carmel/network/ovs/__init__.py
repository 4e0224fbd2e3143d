"""Open vSwitch as the data plane: bridges and ports by OVSDB, all that decides about a frame by OpenFlow."""
