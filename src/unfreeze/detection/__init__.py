"""Detection in long recordings and live sound: patches -> scores -> events, in constant memory."""
