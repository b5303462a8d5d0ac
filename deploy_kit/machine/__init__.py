"""The machine that runs the work: its processor, memory and libraries, and what stands between it and the hardware.

environment   description of the machine, put together from the others
jetson        facts of a Jetson board: L4T, JetPack, power mode
cgroup        limits of a container on processors and memory
emulation     detection of emulators, under which times are no measurement
"""
