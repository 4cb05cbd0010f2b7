"""What is done because others share the store: leases, takeover, failover."""
