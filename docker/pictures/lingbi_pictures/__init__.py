"""What a picture's file may be, judged before it is decoded, and how it is decoded.

Server, page and pipeline share this package, so that they take the same files.
"""
