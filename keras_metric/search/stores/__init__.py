"""Vector stores: FAISS in this process, or Milvus."""
