"""The proxy protocol: one genotype per trial."""
