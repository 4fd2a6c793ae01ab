//! Waking and restoring by a person at a command line, with a kubeconfig alone.
