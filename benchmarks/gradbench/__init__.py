"""The twelve problems of GradBench, and dualrev as a tool that answers its messages."""
