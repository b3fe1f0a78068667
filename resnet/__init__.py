"""The library behind the ladder: one module per job, imported in one direction only.

``shell`` -> ``config`` -> ``data`` -> ``augment``/``layers``/``models`` ->
``events``/``checkpoints`` -> ``training`` -> ``store``/``leases``/``tracking`` -> ``engine`` ->
``ladder`` -> ``terminal``/``cli`` -> ``plan``: nothing on the left imports anything to its right.
"""


class UserError(Exception):
    """A mistake the user can mend; its text is one line that also names the way out.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training stopped on request, after writing a checkpoint to go on from."""
