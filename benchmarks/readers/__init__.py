"""Raw readers of all streams, so that what is measured are the servers.

A stock gRPC client in Python spends more on a message than the server does. These note when bytes came, and look into
them only after the clock has stopped.
"""
