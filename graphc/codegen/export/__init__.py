"""Exported libraries: everything that a program needs to run without Python, in LLVM IR."""
