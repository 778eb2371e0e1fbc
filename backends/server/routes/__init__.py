"""The routes of the wire format, one module a resource."""
