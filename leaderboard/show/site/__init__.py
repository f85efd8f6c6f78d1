"""A static site of a leaderboard: it needs no server and no network, and opens from the disk."""

from leaderboard.show.site.build import SiteOptions, write_site

__all__ = ["SiteOptions", "write_site"]
