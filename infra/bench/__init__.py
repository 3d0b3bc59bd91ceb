"""The project's own benchmark: `./infra/bench/run`. Every figure is measured, none is asserted."""
