"""Configuration: what a user may set, read from `smartsql.toml`, environment and arguments."""

from smartsql.config.reading import Config, load
from smartsql.config.settings import Model, Settings, TaskSettings

__all__ = ["Config", "Model", "Settings", "TaskSettings", "load"]
