"""What every test of this folder may use: the fixtures `weft_context`, `weft_fakes` and `weft_run`."""

pytest_plugins = ["weft.pytest_plugin"]
