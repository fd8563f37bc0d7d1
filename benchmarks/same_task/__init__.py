"""One small task for four tools: data, the network twice, and a program for each tool."""
