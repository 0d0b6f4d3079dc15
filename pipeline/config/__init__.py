"""The configuration: TOML → specs, each checked where it stands."""
