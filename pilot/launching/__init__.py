"""Starting wrappers on this node, in a container or bare."""

from pilot.launching.bare import bare_command
from pilot.launching.launcher import LauncherOptions, NodeLauncher

__all__ = ["LauncherOptions", "NodeLauncher", "bare_command"]
