"""Functions of the runtime in LLVM IR, which kernels, programs and libraries share."""
