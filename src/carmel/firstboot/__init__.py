"""What a machine booted from the ``host`` image is told about itself by ``carmel.yaml`` on its EFI system partition.

``configuration`` reads the file, ``files`` says which files of the system follow from it (pure), ``applying`` writes
those that differ, at every boot. A file that cannot be read, or is wrong, changes nothing: the machine goes on with
what was good the last time, and says on its screen and in the journal what is wrong.
"""
