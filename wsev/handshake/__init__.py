"""The opening handshake (RFC 6455 section 4.2): one HTTP request in, an answer or a Connection out.

``opening`` does the I/O, with ``head`` and ``deadlines``; ``upgrade``, ``origin`` and ``extensions`` judge without any;
``request`` and ``response`` are what users see of it.
"""
