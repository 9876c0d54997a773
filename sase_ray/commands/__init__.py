"""One file per command, each with one public function."""
