"""The op records. Importing this package registers every op."""
