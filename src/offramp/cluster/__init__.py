"""Many machines, by Ray: folders too large for one, and a service with several replicas."""
