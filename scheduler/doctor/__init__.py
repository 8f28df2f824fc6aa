"""What `raywise doctor` looks at. Facts are gathered once (`gather`), and judged by pure functions (`machine`, `home`,
`ray_cluster`): each says what was found and what to do."""

from .facts import Facts
from .findings import Finding, worst
from .judge import judge

__all__ = ["Facts", "Finding", "judge", "worst"]
