"""How work reaches a machine: links, the agent on the far side, the worker processes and what crosses between them.

links/             one file a kind of link: this machine, SSH
inference          images through an engine in a worker
isolate            a child process whose crash is an error with a name
protocol           jobs and replies as lines of JSON
framing            frames of a line and raw bytes, between host and agent
agent_client       the host's end of an agent; agent_start brings it up
remote_cache       the one folder an agent keeps on a device
zip_application    what a device needs of this package, as one file
named_devices      the user's devices.yaml
login              SSH by the user's own configuration
"""
