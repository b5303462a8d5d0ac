"""Devices: how work reaches a machine, and what crosses between the host and the processes there.

The host starts worker processes on a machine and sends them jobs. On this machine a worker is a child process; on a
device behind SSH an agent starts it, keeps files and forwards jobs and replies.

links/               connections to a machine, one file for each kind of link: this machine, SSH
inference            runs preprocessed images through an engine in a worker
isolate              a worker as a child process of this one; its crash becomes an error
agent_client         the host's end of the connection to an agent
agent_start          sends the agent to a device and starts it
login                SSH login by the user's OpenSSH configuration
protocol             jobs and replies as lines of JSON
framing              frames of a line of JSON and raw bytes, between host and agent
remote_cache         the folder that an agent keeps on a device
zip_application      the part of this package that a device needs, as one file
named_devices        the user's devices.yaml
compute_capability   compute capability of a PC's GPU, asked in a worker
"""
