"""The Super Nintendo domain: task packs, the assembly scorer, its tools. It enters hafs through entry points alone."""
