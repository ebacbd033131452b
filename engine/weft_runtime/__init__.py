"""What the platform runs beside the handler: a zygote that forks one worker per attempt. Not for workspaces.

zygote.py     one loop: forks on demand, reaps, leaves nothing behind
worker.py     the forked child: set up, import, one attempt, last frame, exit
describe.py   the forked child that tells what a bundle declares
protocol.py   frames and control messages
loader.py     imports a bundle            guard.py      refuses to import the engine
jail/         what the kernel is asked    limits.py     rlimits
exitcodes.py  what an exit says           tracebacks.py errors as a workspace's author wants them
"""
