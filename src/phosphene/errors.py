"""What can go wrong, said once. The command line turns each of these into one line and exit code 2."""


class PhospheneError(Exception):
    """Base of every error that is somebody's mistake and not a bug.

    The message says what, what it got, and what would work.
    """


class UnknownName(PhospheneError):
    """A subject, layer, unit, class, prior or recipe that does not exist."""


class BadFile(PhospheneError):
    """A file from outside that is damaged, hostile, or not what it says."""


class BadRequest(PhospheneError):
    """Values that cannot go together or lie outside their range."""


class Unavailable(PhospheneError):
    """Something that must come from elsewhere (an extra, a hub) and did not."""


class OutOfSpace(PhospheneError):
    """The disk took no more; what was finished before is kept."""


class Notice(UserWarning):
    """What a user should know and what is nobody's mistake.

    The command line prints it as a line.
    """
