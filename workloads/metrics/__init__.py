"""The metrics that workloads share, a module each: `algoperf.workload.metric` says what one is."""
