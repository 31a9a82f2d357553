"""Problems to solve: the benchmarks and their files."""
