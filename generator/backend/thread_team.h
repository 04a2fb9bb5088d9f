#pragma once
// OpenMP keeps a team of workers for every thread that ever computed. As soon as there are more of
// them than cores, GCC's runtime stops spinning between parallel regions and sleeps instead:
// measured on two cores, decoding fell from 170 to 75 tokens/s once a second thread had learned.
//
// So every thread but the compute thread gives its team back when it is done for a while.
// Threads: concerns the calling thread only.

namespace memslot {

// The calling thread's next parallel region makes a team again (about 0.1 ms). No-op inside a
// region.
void release_thread_team();

}  // namespace memslot
