"""What a worker imports for code of the node library, which comes over the attempt's socket and is no module.

Empty, so that workers which wait for such code are interchangeable.
"""
