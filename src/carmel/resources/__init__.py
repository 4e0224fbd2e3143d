"""The vocabulary: what the things are called, what shape they have, which values they may take.

One file a kind. Everything that Carmel stores, serves or shows is one of these resources. This room imports no other.
"""
