"""What keeps a worker from everything that is not its own: layers that the kernel offers, one file each.

`world` is what the zygote enters once and its workers inherit; `cell` is what each worker enters by itself,
right after the fork; `probe` finds out which layers have an effect here, and `posture` says so. A layer that
was found to work and then fails in a worker ends that worker: nothing runs with less than what is reported.

Nothing in here knows a workspace's code or an attempt's data.
"""
