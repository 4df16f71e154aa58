// expect: the records of a Batch are movable objects
#include "tidemill/batch/batch.hpp"

#ifdef LEGAL_TWIN
void see(const tidemill::Batch<int>& batch) { (void)batch.count(); }
#else
void see(const tidemill::Batch<const int>& batch) { (void)batch.count(); }
#endif
