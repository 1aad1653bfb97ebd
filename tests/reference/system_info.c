/* What llama.cpp says of itself and the processor, on one line. */

#include <llama.h>
#include <stdio.h>

int main(void) {
    llama_backend_init();
    puts(llama_print_system_info());
    llama_backend_free();
    return 0;
}
